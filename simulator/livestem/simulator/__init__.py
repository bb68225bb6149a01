"""A virtual microscope: known specimens, scanned as a real instrument would, with the truth beside."""

from livestem.simulator.frames import Frame
from livestem.simulator.microscope import VirtualMicroscope
from livestem.simulator.scan import Simulation
from livestem.simulator.specimen import Specimen
from livestem.simulator.specimen_file import load_specimen, packaged_specimens
from livestem.simulator.truth import load_truth, save_truth

__all__ = [
    "Frame",
    "Simulation",
    "Specimen",
    "VirtualMicroscope",
    "load_specimen",
    "load_truth",
    "packaged_specimens",
    "save_truth",
]
