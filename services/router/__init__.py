"""Router: which adapter a query is for.

Owns the routing index, a projection of the activation events that can be rebuilt from the stream.

Publishes ApiKeysUsed.
Consumes AdapterActivated, AdapterDeactivated.
Follows AdapterActivated, AdapterDeactivated, ApiKeyCreated, ApiKeyRevoked, TokenRevoked.
"""
