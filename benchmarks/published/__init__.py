"""The authors' procedure as they ran it, mistakes and waste included. For comparison only.

Written from facts about their published runs, whose code has no licence: none of it was copied.
Nothing in the service uses this package. What is odd here is odd on purpose:

`generator.py`
  1. the noisy layers are a list of `Linear`, one for each sweep over the classes, in a loop;
  2. float32 and PyTorch's default memory format throughout the package.

`statistics.py`
  3. each BatchNorm input is copied, permuted, to take its variance;
  4. the hooks stay and work while the student is trained.

`image_folder.py`
  5. every synthetic image becomes a PNG file, and none is ever dropped;
  6. every round walks the folder again and starts a new loader with four processes, which decode
     each image again for each batch;
  7. crop and mirror of a student batch run image by image on PIL images.

`procedure.py`
  8. weight gradients of teacher and student are computed in synthesis and thrown away; the
     teacher's accumulate without end;
  9. the student is put back into training mode inside the loop over an epoch's rounds, so from the
     second round on it answers by the statistics of the batch and its running ones move;
  10. losses are fetched from the device several times a generator step;
  11. the augmentation of generated images goes image by image;
  12. the best accuracy over the epochs on the test set is what is reported.

Not mistakes, but theirs: a new Adam each round, a new generator every ten epochs (counted from the
start and again from the end of warm-up), batches kept before the update of their step, statistics
averaged over rounds, the cosine moved after each epoch.

    python -m benchmarks.published [--seed 0] [--max-seconds N] [--teacher FILE]
"""
