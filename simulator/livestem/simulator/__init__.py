"""A virtual microscope: known specimens, scanned as a real instrument would, with the truth beside."""

from livestem.simulator.scan import Frame, Simulation
from livestem.simulator.specimen import Specimen, load_specimen, packaged_specimens
from livestem.simulator.truth import Truth

__all__ = ["Frame", "Simulation", "Specimen", "Truth", "load_specimen", "packaged_specimens"]
