"""Registry: owns families, versions, provenance, approval, activation, the audit trail, usage and feedback counters.

Publishes SubjectErased, AdapterRegistered, Approved, Rejected, ReviewRequested, AdapterActivated, AdapterDeactivated,
AdapterRolledBack, AdapterReleased, AdapterHeld.
Consumes FeedbackRecorded, SubjectForgotten, TrainingCompleted, EvaluationScored, EvaluationFailed, AdapterLoaded,
GenerationCompleted.
"""
