"""Trainer: owns samples, data sets, training jobs, their checkpoints and reports.

Hears SampleRecorded, PreferenceRecorded, FeedbackRecorded, DatasetQueued, TrainingRequested, TrainingQueued,
AdapterRegistered, GoldenDatasetPublished.
Says TrainingQueued, Started, Progressed, Paused, Completed, Failed, Cancelled, DatasetQueued, DatasetFrozen.
"""
