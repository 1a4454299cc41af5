"""Trainer: owns samples, data sets, training jobs, their checkpoints and reports.

Hears SampleRecorded, PreferenceRecorded, FeedbackRecorded, TrainingRequested, TrainingQueued, AdapterRegistered,
GoldenDatasetPublished.
Says TrainingRequested (what came over HTTP), TrainingQueued, Started, Progressed, Paused, Completed, Failed, Cancelled.
"""
