"""One job that is stopped in one phase, so that a fault can strike it there."""

from pathlib import Path
from typing import Any

from jobs.rows.database import Database
from jobs.settings import Settings
from jobs.states import JobStatus
from jobs.values.jobs import Job
from tests.chaos.simulation.faults import FaultyDatabase
from tests.chaos.simulation.players import Client, Worker
from tests.chaos.simulation.run import Run

Playing = tuple[Any, Any]

# A job passes each of these once: here `nth` selects a variant of the fault.
ONCE = ("P1", "P3", "P4", "P5", "P10")


class Stage(Run):
    """A run without random events.

    Args:
        databases, settings, folder: as for `Run`.
        phase: the phase in which to stop, as in "P6".
        nth: the call of this phase at which to stop, from 0; or the variant of the fault.
    """

    def __init__(
        self,
        databases: tuple[FaultyDatabase, Database],
        settings: Settings,
        folder: Path,
        phase: str,
        nth: int,
    ):
        super().__init__(databases, settings, folder, seed=0)
        self.phase = phase
        self.nth = nth
        (self.client, _) = self.playing[0]
        self.hit: Playing | None = None
        self.is_at_phase = self._reach()

    def _reach(self) -> bool:
        """Play until the call to stop at; False where the phase has fewer calls."""
        if self.phase == "P4":
            self.play_until(lambda: self.job().status is JobStatus.QUEUED and not self.workers())
            return True
        if self.phase == "P10":
            self.play_until(lambda: self.job().is_terminal)
            return True
        count = 0
        while True:
            self.answer_bells()
            if not self.playing:
                return False
            playing = self.playing[0]
            phase = self.call(playing)
            # The claim of interest is that of the distiller; the inspector's looks the same.
            of_interest = self.phase != "P5" or getattr(playing[0], "queue", "") == "distill"
            if phase == self.phase and of_interest:
                if count == self.nth or self.phase in ONCE:
                    self.hit = playing
                    return True
                count += 1

    def play_until(self, condition: Any) -> None:
        """Let all players make calls in turn until a condition holds."""
        while not (self.client.job_id and condition()):
            waits = self.client.job_id and self.job().status is JobStatus.VALIDATING
            if self.phase != "P4" or waits:
                self.answer_bells()
            for playing in list(self.playing):
                self.call(playing)

    def call(self, playing: Playing, error: Exception | None = None) -> str | None:
        """Let one player make its call; return the phase of its next one, None when it is done."""
        _, play = playing
        try:
            return str(next(play) if error is None else play.throw(error))
        except StopIteration:
            if playing in self.playing:
                self.playing.remove(playing)
            return None

    def job(self) -> Job:
        return self.world.observer.clients.get(self.client.job_id)

    def workers(self) -> list[Playing]:
        return [playing for playing in self.playing if isinstance(playing[0], Worker)]

    def into_the_work(self) -> None:
        """At a claim: make it, so that the fault strikes a worker that holds the job."""
        if self.phase == "P5" and self.hit is not None:
            self.call(self.hit)

    def kill(self) -> None:
        """End the player that is about to make a call."""
        if self.hit is not None:
            self.hit[1].close()
            if self.hit in self.playing:
                self.playing.remove(self.hit)

    def lose_lease(self) -> None:
        """Let the lease of the job expire, and run upkeep."""
        self.world.run_out_leases()
        self.world.let_time_pass()
        self.world.upkeep()

    def freeze(self) -> Playing | None:
        """Stop the player that is about to make a call, until `wake`; its lease expires."""
        if self.hit is None or self.hit not in self.playing:
            return None
        self.playing.remove(self.hit)
        self.lose_lease()
        return self.hit

    def play_until_held_again(self, zombie: Playing) -> None:
        """Let others play until one of them holds the job of the zombie."""
        fence = zombie[0].claims.fence
        while not any(other.claims and other.claims.fence > fence for other, _ in self.workers()):
            self.answer_bells()
            for playing in list(self.playing):
                self.call(playing)

    def end(self) -> Job:
        """End all faults; return the only job, ended and checked."""
        if not self.client.job_id:
            again = Client(self.world)
            again.key = self.client.key
            if not any(isinstance(player, Client) for player, _ in self.playing):
                self.playing.append((again, again.play()))
                self.client = again
        self.calm_down()
        (job,) = self.verdict()
        return job

    def wake(self, zombie: Playing) -> None:
        """Let a stopped player continue to its end."""
        while self.call(zombie) is not None:
            pass
