"""Router: which adapter a query is for.

Owns the routing index, a projection of the activation events that can be rebuilt from the stream.

Keeps what people taught it, by `route teach` or by feedback on answers that `auto` routed wrongly.

Publishes SubjectErased, ApiKeysUsed.
Consumes FeedbackRecorded, GenerationRecorded, SubjectForgotten, AdapterActivated, AdapterDeactivated.
Follows AdapterActivated, AdapterDeactivated, ApiKeyCreated, ApiKeyRevoked, TokenRevoked.
"""
