"""How well every method draws what is really there, on simulated scans whose truth is known.

Run: ``python -m benchmarks.accuracy [--quick] [--weights FILE] [--resume]`` in the checkout (see ``--help``).

Rules
-----
* Nothing is tuned here: specimens as they come with livestem, presets as they are, chips of the paper's sizes.
* The path is the product's own: the simulator's tiles become messages, the accumulator takes them, the finals are
  computed from what it holds and scored as ``livestem score`` does. Only network and journal are left out.
* One scan serves all doses: finals are taken at checkpoints, numbers of frames, while it runs on. Each checkpoint is
  the scan of somebody who stopped there: its truth, and support chips chosen by that truth.
* Two series of frames. ``real``: each frame has the photons of a real one, so the dose of 64 of them is what 64
  frames give, drift included. ``eightfold``: each frame carries the photons of eight real ones but the image noise
  and the drift of one, so that doses of hundreds of frames are reached almost without drift. It stands for no
  instrument; beside the other it separates what photons do from what drift does.
* A dose is EDS photons per pixel, the field's mean, strobes of the zero peak not counted.
* What is known to the methods: the specimen's elements and strays, four support chips a class, and through these the
  number of classes, which Ward takes. Preset ``graphem`` has its own list of lines instead of the elements.
"""
