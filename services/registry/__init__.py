"""Registry: owns families, versions, provenance, approval, activation, the audit trail, usage and feedback counters.

Consumes TrainingCompleted, EvaluationScored, EvaluationFailed, GenerationCompleted, FeedbackRecorded, AdapterLoaded.
Publishes AdapterRegistered, Approved, ReviewRequested, Rejected, AdapterActivated, AdapterDeactivated,
AdapterRolledBack.
"""
