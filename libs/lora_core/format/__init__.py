"""The adapter file: an Arrow IPC file that is checked before it is believed, and the safetensors beside it."""
