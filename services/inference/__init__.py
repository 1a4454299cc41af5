"""Inference: OpenAI-compatible serving of many adapters on one base model.

Owns nothing durable: an adapter cache, loaded slots, and a projection of the registry's events.
Hears AdapterRegistered, Approved, Rejected, AdapterActivated, AdapterDeactivated (from the stream's start).
Says GenerationCompleted, AdapterLoaded, AdapterUnloaded, FeedbackRecorded.

A request's way: `api` → `generation` (who answers: `resolution`, `catalogue`) → a lease of `slots` → `backend`.
An adapter's way: `projection` → `policies` → `slots` → `loading`. Other processes: `replicas`, `vllm`.
"""
