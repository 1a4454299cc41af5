"""The five services. Importing one imports none of the others."""

from services.former_names import install

install()
