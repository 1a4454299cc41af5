"""Imports between modules, those within functions included."""

from graphlib import TopologicalSorter

import grimp

PACKAGES = ("services", "fleet_cli", "fleet_events", "fleet_kit", "linear_regex", "lora_core", "personal_data")


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 500
    TopologicalSorter(imports).prepare()  # raises CycleError, which has the circle
