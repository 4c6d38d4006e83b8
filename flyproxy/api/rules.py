"""/prometheus/<org>/api/v1/{rules,alerts}: there are no rules yet, so both are empty; what is asked is checked all the
same, so that a client that works against this works later.
"""

import re

from aiohttp import web

from flyproxy.api.asking import Asking
from flyproxy.api.faults import bad_parameter
from flyproxy.api.parameters import Parameters

_BOOLEANS = frozenset(["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"])
"""Go's strconv.ParseBool."""


class RulesHandlers:
    """The handlers of every organization."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def routes(self) -> list[web.RouteDef]:
        base = "/prometheus/{organization}/api/v1"
        return [web.get(f"{base}/rules", self.rules), web.get(f"{base}/alerts", self.alerts)]

    async def rules(self, request: web.Request) -> web.StreamResponse:
        """Groups of rules."""
        asked = await self._asking.asked(request)
        check_filters(asked.parameters)
        await self._asking.check_matches(asked, asked.parameters.matches())
        return await self._asking.data(request, {"groups": []})

    async def alerts(self, request: web.Request) -> web.StreamResponse:
        """Alerts that are pending or firing."""
        self._asking.organization(request)
        return await self._asking.data(request, {"alerts": []})


def check_filters(parameters: Parameters) -> None:
    """Raises ApiFault, in Prometheus' words, for a filter that means nothing."""
    kind = parameters.text("type").lower()
    if kind not in ("", "alert", "record"):
        raise bad_parameter("type", f'not supported value "{kind[:64]}"')
    hidden = parameters.text("exclude_alerts")
    if hidden and hidden not in _BOOLEANS:
        raise bad_parameter("exclude_alerts", f'cannot parse "{hidden[:64]}" to true or false')
    limit = parameters.text("group_limit")
    if limit and not re.fullmatch(r"\+?0*[1-9][0-9]{0,17}", limit):
        raise bad_parameter("group_limit", "group_limit needs to be a valid number, greater than 0")
    if parameters.text("group_next_token"):
        if not limit:
            raise bad_parameter("group_limit", "group_limit needs to be present in order to paginate over the groups")
        raise bad_parameter("group_next_token", "no group of rules has such a token")
