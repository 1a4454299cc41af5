"""Registry: owns families, versions, provenance, approval, activation, the audit trail, usage and feedback counters.

Publishes TrainingRequested, AdapterRegistered, Approved, Rejected, ReviewRequested, AdapterActivated,
AdapterDeactivated, AdapterRolledBack, PolicyChanged, CanaryStarted, CanaryAdvanced, CanaryRolledBack,
UpdateRecommended.
Consumes FeedbackRecorded, TrainingCompleted, TrainingFailed, TrainingCancelled, EvaluationScored, EvaluationFailed,
AdapterLoaded, AdapterUnloaded, GenerationCompleted, GenerationFailed.
"""
