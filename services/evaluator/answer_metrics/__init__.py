"""Figures of an answer beside the judge's scores: built in, from plug-ins, or measured by a command."""
