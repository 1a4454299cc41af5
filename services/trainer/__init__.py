"""Trainer: owns samples, data sets, training jobs, their checkpoints and reports.

Publishes DatasetQueued, ErasureQueued, SubjectForgotten, DatasetFrozen, TrainingRequested, TrainingQueued,
TrainingStarted, TrainingProgressed, TrainingCompleted, TrainingFailed, TrainingCancelled, TrainingPaused, ApiKeysUsed.
Consumes SampleRecorded, PreferenceRecorded, FeedbackRecorded, GenerationRecorded, DatasetQueued, ErasureQueued,
SubjectErased, TrainingRequested, TrainingQueued, AdapterRegistered, GoldenDatasetPublished, AdapterActivated,
AdapterDeactivated, AdapterReleased.
Follows ApiKeyCreated, ApiKeyRevoked, TokenRevoked.
"""
