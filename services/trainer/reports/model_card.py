"""The model card: README.md of the PEFT folder, with the front matter that the Hugging Face hub and PEFT read."""

import json

from services.trainer.reports.document import TrainingReport
from services.trainer.reports.page import templates


def render(report: TrainingReport) -> str:
    """Markdown behind YAML front matter (base_model, library_name, pipeline_tag, tags)."""
    name = report.base_model.name if report.base_model else ""
    tags = [f"base_model:adapter:{name}", "lora", "transformers", "lorafleet", report.objective]
    front: dict[str, object] = {
        "base_model": name,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": tags if report.method == "lora" else [*tags, report.method],
    }
    # JSON is YAML, and needs no care for colons and quotes.
    head = "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in front.items())
    body = templates().get_template("model_card.md.j2").render(report=report, base=name)
    return f"---\n{head}---\n\n{body}"
