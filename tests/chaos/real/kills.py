"""Faults that can strike a fleet at any moment; each function returns after its fault is over."""

import contextlib
import random
import signal
import time
from collections.abc import Callable

from tests.chaos.real.fleet import LEASE_SECONDS, Fleet, Member

Strike = Callable[[Fleet, Member, random.Random], None]


def kill_child(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    for core in holder.cores():
        with contextlib.suppress(Exception):
            core.kill()


def kill_worker(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    holder.kill()
    holder.start()


def drain_worker(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    holder.terminate()
    holder.start()


def freeze_worker(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    """Stop the worker past its lease, so that another continues; then it comes back as a zombie."""
    holder.send(signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + 1.5)
    holder.send(signal.SIGCONT)


def kill_upkeep(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    fleet.upkeep.kill()
    holder.kill()
    holder.start()
    fleet.upkeep.start()


def kill_api(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    fleet.api.kill()
    fleet.api.start()


def flush_broker(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    fleet.servers.valkey.flush()
    holder.kill()
    holder.start()


def restart_broker(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    fleet.servers.valkey.kill()
    fleet.servers.valkey.start()


def restart_database(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    fleet.servers.postgres.kill()
    time.sleep(chance.random())
    fleet.servers.postgres.start()


def cut_off_worker(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    for proxy in holder.proxies:
        proxy.turn("hole")
    time.sleep(LEASE_SECONDS + 1.5)
    for proxy in holder.proxies:
        proxy.turn("pass")
        proxy.disconnect()


def cut_store(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    for distiller in fleet.distillers:
        distiller.store.turn("refuse")
    time.sleep(1.0)
    for distiller in fleet.distillers:
        distiller.store.turn("pass")


def ring_five_times(fleet: Fleet, holder: Member, chance: random.Random) -> None:
    for _ in range(5):
        fleet.service.resources.doorbell.ring("distill", "again")


# These take the job from its holder, most of them at the cost of an attempt.
COSTLY: tuple[Strike, ...] = (
    kill_child,
    kill_worker,
    freeze_worker,
    kill_upkeep,
    flush_broker,
    cut_off_worker,
)
FREE: tuple[Strike, ...] = (
    drain_worker,
    kill_api,
    restart_broker,
    restart_database,
    cut_store,
    ring_five_times,
)
TAKES_THE_JOB = (*COSTLY, drain_worker)
NO_HARM_TO_A_RUN = (kill_api, ring_five_times)
