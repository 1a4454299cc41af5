"""The six services. None imports another."""

from services.former_names import install

install()
