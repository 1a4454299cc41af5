"""Trainer: owns samples, data sets, training jobs, their checkpoints and reports.

Publishes DatasetQueued, DatasetFrozen, TrainingRequested, TrainingQueued, TrainingStarted, TrainingProgressed,
TrainingCompleted, TrainingFailed, TrainingCancelled, TrainingPaused.
Consumes SampleRecorded, PreferenceRecorded, FeedbackRecorded, DatasetQueued, TrainingRequested, TrainingQueued,
AdapterRegistered, GoldenDatasetPublished, AdapterReleased.
"""
