"""LoginDelay: guessing passwords takes longer with each wrong one."""

import ipaddress
import time
from collections import OrderedDict

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FREE = 3  # attempts without delay
LONGEST = 600.0  # seconds
ADDRESSES = 10_000  # remembered


class LoginDelay:
    """Answers logins of an address with 429 until its delay, which doubles with each failure, has passed."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # count, time of the last one

    async def receive(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a login, or refuse it."""
        address = network_of(scope)
        wait = self.wait(address)
        if wait > 0:
            refusal = PlainTextResponse(
                f"Too many wrong passwords; try again in {wait:.0f} s.", 429, {"retry-after": f"{wait:.0f}"}
            )
            await refusal(scope, receive, send)
            return
        self.failed(address)  # before the answer: a thousand attempts at once count as a thousand

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self._failures.pop(address, None)
            await send(message)

        await app(scope, receive, sent)

    def wait(self, address: str) -> float:
        """Return the seconds until the next attempt of an address, rounded up; 0 if it may try now."""
        count, last = self._failures.get(address, (0, 0.0))
        delay = min(LONGEST, 2.0 ** (count - FREE)) if count >= FREE else 0.0
        left = last + delay - time.monotonic()
        return max(1.0, -(-left // 1)) if left > 0 else 0.0

    def failed(self, address: str) -> None:
        """Count an attempt."""
        count = self._failures.pop(address, (0, 0.0))[0]
        self._failures[address] = count + 1, time.monotonic()
        while len(self._failures) > ADDRESSES:
            self._failures.popitem(last=False)


def network_of(scope: Scope) -> str:
    """Return the address of a client; of IPv6 the network, since each client has 2^64 addresses."""
    client = (scope.get("client") or ("unknown",))[0]
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return str(client)
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((client, 64), strict=False))
    return str(address)
