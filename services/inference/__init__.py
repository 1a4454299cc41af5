"""Inference: OpenAI-compatible serving of many adapters on one base model.

Owns nothing durable: an adapter cache, loaded slots, and a projection of the registry's events.

Publishes FeedbackRecorded, GenerationRecorded, SubjectErased, ApiKeysUsed, AdapterLoaded, AdapterUnloaded,
GenerationCompleted, GenerationFailed.
Follows AdapterRegistered, Approved, Rejected, AdapterActivated, AdapterDeactivated, PolicyChanged, CanaryStarted,
CanaryAdvanced, CanaryRolledBack, AdapterReleased, ApiKeyCreated, ApiKeyRevoked, TokenRevoked.

A request's way: `api` → `generation` (who answers: `resolution`, `catalogue`) → a lease of `slots` → `backend`.
An adapter's way: `projection` → `policies` → `slots` → `loading`. Other processes: `replicas`, `vllm`.
"""

import os

# Read by libgomp when torch is loaded. Its threads otherwise spin for milliseconds at the end of each product, on cores
# that this process's event loop and others need; with a fifth of this they sleep within a step and wake late.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
