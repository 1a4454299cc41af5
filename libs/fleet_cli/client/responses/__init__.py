"""What the services answer: the fields that the command line reads. Everything else is kept for --json."""

from fleet_cli.client.responses.evaluator import Agreement, Bounds, Calibration, Evaluation, GoldenChanged, GoldenSet
from fleet_cli.client.responses.inference import ChatCompletion, Choice, Message, Served, Weighted
from fleet_cli.client.responses.registry import (
    Adapter,
    AnsweringAdapter,
    AnswerProvenance,
    Link,
    Provenance,
    Withdrawal,
)
from fleet_cli.client.responses.reply import Anything, Reply
from fleet_cli.client.responses.router import Match, Route, RouteAnswer
from fleet_cli.client.responses.trainer import (
    Attempt,
    BuildFault,
    BuildQueued,
    Dataset,
    DatasetBuild,
    DroppedRecord,
    DroppedRecords,
    FilterCount,
    Job,
    JobAccepted,
    Metric,
    Recorded,
    Uploaded,
)

__all__ = [
    "Adapter",
    "Agreement",
    "AnswerProvenance",
    "AnsweringAdapter",
    "Anything",
    "Attempt",
    "Bounds",
    "BuildFault",
    "BuildQueued",
    "Calibration",
    "ChatCompletion",
    "Choice",
    "Dataset",
    "DatasetBuild",
    "DroppedRecord",
    "DroppedRecords",
    "Evaluation",
    "FilterCount",
    "GoldenChanged",
    "GoldenSet",
    "Job",
    "JobAccepted",
    "Link",
    "Match",
    "Message",
    "Metric",
    "Provenance",
    "Recorded",
    "Reply",
    "Route",
    "RouteAnswer",
    "Served",
    "Uploaded",
    "Weighted",
    "Withdrawal",
]
