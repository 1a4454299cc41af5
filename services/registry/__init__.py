"""Registry: owns families, versions, provenance, approval, activation, the audit trail, usage and feedback counters.

Publishes SubjectErased, TrainingRequested, AdapterRegistered, Approved, Rejected, ReviewRequested, AdapterActivated,
AdapterDeactivated, AdapterRolledBack, PolicyChanged, CanaryStarted, CanaryAdvanced, CanaryRolledBack,
UpdateRecommended, AdapterReleased, AdapterHeld, ApiKeyCreated, ApiKeyRevoked, TokenRevoked, ApiKeysUsed.
Consumes FeedbackRecorded, SubjectForgotten, TrainingCompleted, TrainingFailed, TrainingCancelled, EvaluationScored,
EvaluationFailed, AnswerJudged, ApiKeysUsed, AdapterLoaded, AdapterUnloaded, GenerationCompleted, GenerationFailed.
Follows ApiKeyCreated, ApiKeyRevoked, TokenRevoked.
"""
