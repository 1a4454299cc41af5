"""Trainer: owns samples, data sets, training jobs, their checkpoints and reports.

Hears SampleRecorded, PreferenceRecorded, TrainingRequested.
Says TrainingRequested (what came over HTTP), TrainingStarted, Progressed, Completed, Failed, Cancelled.
"""
