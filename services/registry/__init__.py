"""Registry: owns families, versions, provenance, approval, activation, the audit trail, usage and feedback counters.

Hears TrainingCompleted, EvaluationScored, GenerationCompleted, FeedbackRecorded, AdapterLoaded.
Says AdapterRegistered, Approved, ReviewRequested, Rejected, AdapterActivated, AdapterDeactivated, AdapterRolledBack.
"""
