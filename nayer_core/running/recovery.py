"""Recovery of a run that diverges, and of one whose device is full.

    diverged          the run returns to the newest good checkpoint and continues with all learning rates
                      halved; at most three times, then it ends in its last good state
    device is full    the run returns to the newest checkpoint and continues with half the batch that did
                      not fit, if the client allows that; at most four times for each batch. A run in
                      several processes fails: the others do not know which step one of them could not do

When a run goes back, later checkpoints are discarded, and the restored state is saved at once with the
changes: a process that resumes the run needs to know them.
"""

from collections.abc import Callable

from nayer_core.contract.errors import ErrorCode, TrainingError
from nayer_core.contract.events import WarningEvent
from nayer_core.contract.spec import OnOutOfMemory
from nayer_core.hardware.device_memory import DeviceFull, do_within_memory, give_back_unused
from nayer_core.running.adaptation import MOST_HALVINGS, MOST_ROLLBACKS, SMALLEST_BATCH, Adaptation
from nayer_core.running.checkpoint import CheckpointFolder, SavedState
from nayer_core.running.fitting_batches import batches_that_fit
from nayer_core.running.run import Run, Saver

IsUsable = Callable[[Adaptation, int], bool]  # (adaptation of a saved state, its number of steps)


class Recovery:
    """Runs a run to its end and recovers from divergence and from a full device.

    Args:
        run: newly built, not yet resumed: without a checkpoint, the run begins again from this state.
        checkpoints: of this run alone; with None the run can only return to its beginning.
        on_out_of_memory: "halve" continues with smaller batches, "fail" reports sizes that fit.
        after_return: called after the run has returned to an earlier state, before it continues.
    """

    def __init__(
        self,
        run: Run,
        checkpoints: CheckpointFolder | None = None,
        on_out_of_memory: OnOutOfMemory = "fail",
        after_return: Callable[[], None] = lambda: None,
    ):
        self.run = run
        self.checkpoints = checkpoints
        self.on_out_of_memory = on_out_of_memory
        self.after_return = after_return
        state = run.state()
        copies = {name: tensor.detach().cpu().clone() for name, tensor in state.tensors.items()}
        self._beginning = SavedState(copies, state.facts)

    def go_on(
        self,
        *,
        checkpoint_seconds: float = 60.0,
        after_epoch: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Continue from the present state; arguments and result are those of `Run.go_on`.

        Raises:
            TrainingError: `diverged` after the last rollback, when the run is in its last good state;
                `device_out_of_memory`, with sizes that were tried and fit.
        """
        if self.checkpoints is not None and self.checkpoints.is_empty and self._steps_done > 0:
            self._save()  # the run began elsewhere: now it can return to its present state

        def attempt() -> bool:
            return self.run.go_on(
                checkpoints=self.checkpoints,
                checkpoint_seconds=checkpoint_seconds,
                after_epoch=lambda: _measure(after_epoch),
                should_stop=should_stop,
            )

        while True:
            try:
                return do_within_memory(attempt)
            except DeviceFull:
                self._make_room()
            except TrainingError as error:
                if error.code is not ErrorCode.DIVERGED:
                    raise
                self._roll_back(error)

    @property
    def _steps_done(self) -> int:
        return self.run.progress.steps_done

    def _roll_back(self, error: TrainingError) -> None:
        before, diverged_at = self.run.adaptation, self._steps_done
        if before.rollbacks == MOST_ROLLBACKS:
            self._return(lambda *_: True)
            self.run.adopt(before)
            message = (
                f"{error.message} The run had gone back and on with smaller steps {MOST_ROLLBACKS} times. "
                f"What is left is its state after {self._steps_done} of {diverged_at} steps."
            )
            raise TrainingError(error.code, message, error.hint) from error
        self._return(before.should_return_to)
        message = (
            f"{error.message} The run goes back from step {diverged_at} to step {self._steps_done} and on "
            f"with all learning rates halved (rollback {before.rollbacks + 1} of {MOST_ROLLBACKS})."
        )
        self.run.emit(WarningEvent(code="rolled_back", message=message))
        self._adopt(before.with_smaller_steps(self._steps_done, message))

    def _make_room(self) -> None:
        run, before, device = self.run, self.run.adaptation, self.run.machine.device
        give_back_unused(device)
        batch = run.plan.steps[run.method.next_kind].batch
        size = getattr(run.config_in_force, batch)
        if (processes := run.machine.peers.size) > 1:
            raise TrainingError(
                ErrorCode.DEVICE_OUT_OF_MEMORY,
                f"One of {processes} {device.type} devices has no room for its share of {batch} {size}.",
                f"Lower config.{batch} or config.bank_capacity: with several processes batches are "
                "neither tried nor halved.",
            )
        is_spent = before.halvings.get(batch, 0) == MOST_HALVINGS or size // 2 < SMALLEST_BATCH
        if is_spent or self.on_out_of_memory == "fail":
            raise self._does_not_fit()
        message = (
            f"The {device.type} device has no room for {batch} {size} in epoch "
            f"{run.method.epoch + 1}; the run goes on with {size // 2}."
        )
        self._return(lambda *_: True)
        run.emit(WarningEvent(code="batch_halved", message=message))
        self._adopt(before.with_smaller_batches(batch, message))

    def _return(self, is_usable: IsUsable) -> None:
        """Return to the newest saved state that is usable, or to the beginning of the run."""
        run, checkpoint = self.run, None
        if self.checkpoints is not None:
            checkpoint = self.checkpoints.go_back(
                run.method.bank,
                lambda facts: is_usable(
                    Adaptation.from_facts(facts["adaptation"]), sum(facts["steps_done"].values())
                ),
            )
        if checkpoint is None:
            run.method.bank.clear()
        began = run.began
        run.restore(checkpoint or self._beginning)
        run.began = began  # the time of the steps that were discarded counts

    def _adopt(self, adaptation: Adaptation) -> None:
        self.run.adopt(adaptation)
        self._save()
        self.after_return()

    def _save(self) -> None:
        Saver(self.run, self.checkpoints).save()

    def _does_not_fit(self) -> TrainingError:
        run, config = self.run, self.run.config_in_force
        sizes = ", ".join(f"{batch} {getattr(config, batch)}" for batch in config.BATCH_SIZES)
        fitting = batches_that_fit(run)
        hint = "No smaller batch fits either: choose smaller networks or a smaller config.bank_capacity."
        if fitting is not None:
            values = " and ".join(f"config.{batch} to {size}" for batch, size in fitting.items())
            hint = f'Set {values}: they were tried here and fit. Or set on_out_of_memory to "halve".'
        return TrainingError(
            ErrorCode.DEVICE_OUT_OF_MEMORY,
            f"The {run.machine.device.type} device has no room for batches of these sizes: {sizes}.",
            hint,
        )


def _measure(after_epoch: Callable[[], None]) -> None:
    try:
        do_within_memory(after_epoch)
    except DeviceFull:
        raise TrainingError(
            ErrorCode.DEVICE_OUT_OF_MEMORY,
            "The device has no room for what is measured after an epoch.",
            "Lower config.bank_capacity: the bank is held on the device.",
        ) from None
