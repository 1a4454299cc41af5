"""Evaluator: owns golden data sets and evaluations.

Publishes SubjectErased, EvaluationRequested, GoldenDatasetPublished, EvaluationScored, EvaluationFailed,
RegressionDetected, AnswerJudged, ApiKeysUsed.
Consumes GenerationRecorded, AdapterRegistered, EvaluationRequested, AdapterActivated, AdapterReleased.
Follows ApiKeyCreated, ApiKeyRevoked, TokenRevoked.
"""
