"""Registry: owns families, versions, provenance, approval, activation, the audit trail, usage and feedback counters.

Publishes SubjectErased, TrainingRequested, AdapterRegistered, Approved, Rejected, ReviewRequested, AdapterActivated,
AdapterDeactivated, AdapterRolledBack, PolicyChanged, CanaryStarted, CanaryAdvanced, CanaryRolledBack,
UpdateRecommended, AdapterReleased, AdapterHeld.
Consumes FeedbackRecorded, SubjectForgotten, TrainingCompleted, TrainingFailed, TrainingCancelled, EvaluationScored,
EvaluationFailed, AdapterLoaded, AdapterUnloaded, GenerationCompleted, GenerationFailed.
"""
