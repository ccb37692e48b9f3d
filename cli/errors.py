"""What the command line refuses itself; `nayer.errors` has what the service and the network refuse.

ClientError      carries a stable code, a message and a hint
  RequestError   options and files that make no request
  ServeError     a service that cannot be started here
"""

from nayer import ClientError


class RequestError(ClientError):
    """Options and files that make no request."""


class ServeError(ClientError):
    """A service that cannot be started here."""
