import pytest

from components.services.serving import limits
from components.services.serving.limits import Rates, RequestError, client_of


def test_a_client_has_a_burst_then_its_rate(monkeypatch):
    now = [0.0]
    rates = Rates(2.0, clock=lambda: now[0])
    for _ in range(4):
        rates.spend("a")
    with pytest.raises(RequestError) as refused:
        rates.spend("a")
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    rates.spend("b")
    now[0] = 0.5
    rates.spend("a")
    rates.charge("a", 9)  # the other queries of a batch
    now[0] = 5.0
    with pytest.raises(RequestError):
        rates.spend("a")
    now[0] = 5.5
    rates.spend("a")
    now[0] = 1000.0
    for _ in range(4):
        rates.spend("a")
    monkeypatch.setattr(limits, "MAX_CLIENTS", 2)
    for client in "cdefg":
        rates.spend(client)
    assert list(rates._buckets) == ["f", "g"]


def test_without_a_rate_everything_is_allowed():
    rates = Rates(0)
    for _ in range(1000):
        rates.spend("a")
    rates.charge("a", 1000)
    assert not rates._buckets


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_one_machine_with_many_addresses_is_one_client(address, client):
    assert client_of(address) == client
