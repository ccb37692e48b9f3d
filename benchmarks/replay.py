"""Other ways to draw a student's batches from the bank: measured in `student_learning`, and not taken."""

from collections import deque
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from nayer_core.images.augmentation import cutmix
from nayer_core.images.memory_bank import MemoryBank
from nayer_core.methods.parts.student_training import StudentTrainer
from nayer_core.tasks.losses import distillation_loss


class _Plain(StudentTrainer):
    """A step in one method, for subclasses that change parts of it; becomes the class of a built trainer."""

    def _update(self, loss_of: Callable[[], Tensor]) -> Tensor:
        self.optimizer.lr = self.learning_rate
        self.optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        self.optimizer.step()
        self.steps_done += 1
        self._update_average()
        return loss.detach()

    def _augmented(self, images: Tensor, *, mix: bool) -> Tensor:
        augmented = self.augment(images, self.augment.draw(len(images), self.rng))
        if not mix:
            return augmented
        return cutmix(augmented, torch.rand(3, generator=self.rng, device=images.device))


class Views(_Plain):
    """Keep views of images with the teacher's answers; a share of each batch is made, the rest drawn again.

    A row sets the class attributes.
    """

    uses = 4  # of a view, on average
    kept_batches = 8

    def step(self, bank: MemoryBank) -> Tensor:
        """One update on new and on kept views."""
        size = self.config.student_batch_size
        fresh = size // self.uses if self._views else size
        images = self._augmented(bank.sample(fresh, self.rng), mix=self._cutmix_is_due())
        with torch.no_grad(), self.machine.arithmetic.autocast():
            logits = self.teacher(images).float()
        replayed = self._draw(size - fresh)
        self._views.append((images, logits))
        batch = torch.cat([images, *(part[0] for part in replayed)])
        answers = torch.cat([logits, *(part[1] for part in replayed)])
        return self._update(partial(self._compare, batch, answers))

    @property
    def _views(self) -> deque[tuple[Tensor, Tensor]]:
        if not hasattr(self, "_stored_views"):
            self._stored_views: deque[tuple[Tensor, Tensor]] = deque(maxlen=self.kept_batches * self.uses)
        return self._stored_views

    def _draw(self, count: int) -> list[tuple[Tensor, Tensor]]:
        if not count:
            return []
        images = torch.cat([images for images, _ in self._views])
        logits = torch.cat([logits for _, logits in self._views])
        indices = torch.randint(len(images), (count,), generator=self.rng, device=images.device)
        return [(images[indices], logits[indices])]

    def _compare(self, images: Tensor, logits: Tensor) -> Tensor:
        with self.machine.arithmetic.autocast():
            answers = self.student(images)
            return distillation_loss(answers, logits, self.config.temperature)


class Views2(Views):
    """Each view twice."""

    uses = 2


class Views8(Views):
    """Each view eight times."""

    uses = 8


class Recent(StudentTrainer):
    """Half of each batch is drawn from the newest fifth of the bank."""

    def step(self, bank: MemoryBank) -> Tensor:
        """One update."""
        return super().step(_Newest(bank))  # type: ignore[arg-type] # it has all that the trainer uses


class _Newest:
    def __init__(self, bank: MemoryBank):
        self.bank = bank

    def sample(self, batch_size: int, rng: torch.Generator) -> Tensor:
        newest = max(1, len(self.bank) // 5)
        half = batch_size // 2
        ages = torch.randint(newest, (half,), generator=rng, device=self.bank.images.device)
        slots = (self.bank.added - 1 - ages) % self.bank.capacity
        return torch.cat([self.bank.sample(batch_size - half, rng), self.bank.images[slots]])


class Priority(_Plain):
    """Images are drawn by how far the student was from the teacher on them when last seen."""

    def step(self, bank: MemoryBank) -> Tensor:
        """One update."""
        size, device = self.config.student_batch_size, bank.images.device
        if not hasattr(self, "_far"):
            self._far = torch.zeros(bank.capacity, device=device)
        far = self._far[: len(bank)]
        unseen = far == 0
        weight = torch.where(unseen, far.max().clamp_min(1e-3), far).pow(0.7)
        slots = torch.multinomial(weight, size, replacement=True, generator=self.rng)
        mix = self._cutmix_is_due()
        images = self._augmented(bank.images[slots], mix=mix)

        def loss_of() -> Tensor:
            with self.machine.arithmetic.autocast():
                with torch.no_grad():
                    logits = self.teacher(images)
                answers = self.student(images)
            t = self.config.temperature
            own, theirs = ((x.float() / t).log_softmax(1) for x in (answers, logits))
            each = F.kl_div(own, theirs, reduction="none", log_target=True).sum(1).clamp_min(0) * t**2
            if not mix:
                self._far[slots] = each.detach()
            return each.mean()

        return self._update(loss_of)
