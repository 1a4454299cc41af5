"""Console: pages for the people who approve, train and are on call.

Owns nothing: every page is made of what the other services answer to the viewer's own token, and of the bus.

Publishes ApiKeysUsed.
Follows ApiKeyCreated, ApiKeyRevoked, TokenRevoked.

A request's way: `session` (cookie → token) → the kit's front (who calls) → `pages` → `rendering`.
"""
