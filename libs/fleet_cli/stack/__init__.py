"""The embedded stack: the real servers and the services as processes of this machine, below one folder.

`Fleet` starts and stops them. Nothing here is a stand-in: production differs in where the same servers run.
"""

from fleet_cli.stack.environment import FleetInfo, ServiceInfo
from fleet_cli.stack.errors import AlreadyRunning, ModelUnavailable, PartFailed, StackError
from fleet_cli.stack.fleet import SERVERS, Fleet
from fleet_cli.stack.models import BaseModel, embedding_model_path, prepare_base_model

__all__ = [
    "SERVERS",
    "AlreadyRunning",
    "BaseModel",
    "Fleet",
    "FleetInfo",
    "ModelUnavailable",
    "PartFailed",
    "ServiceInfo",
    "StackError",
    "embedding_model_path",
    "prepare_base_model",
]
