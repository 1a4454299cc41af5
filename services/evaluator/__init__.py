"""Evaluator: owns golden data sets and evaluations.

Publishes SubjectErased, EvaluationRequested, GoldenDatasetPublished, EvaluationScored, EvaluationFailed,
RegressionDetected, ApiKeysUsed.
Consumes AdapterRegistered, EvaluationRequested, AdapterActivated, AdapterReleased.
Follows ApiKeyCreated, ApiKeyRevoked, TokenRevoked.
"""
