"""The commands of `lorafleet`: one file a group."""
