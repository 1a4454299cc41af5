"""Registry: owns families, versions, provenance, approval, activation, the audit trail, usage and feedback counters.

Publishes AdapterRegistered, Approved, Rejected, ReviewRequested, AdapterActivated, AdapterDeactivated,
AdapterRolledBack, AdapterReleased, AdapterHeld.
Consumes FeedbackRecorded, TrainingCompleted, EvaluationScored, EvaluationFailed, AdapterLoaded, GenerationCompleted.
"""
