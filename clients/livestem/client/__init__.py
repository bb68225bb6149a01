"""What runs beside livestem: publish a microscope's data, follow the results. Light: no science is loaded here."""

from livestem.client.acquisition import Acquisition
from livestem.client.endpoints import Endpoint
from livestem.client.instrument import Instrument
from livestem.client.keys import Keys, load_keys
from livestem.client.scan_writer import ScanWriter
from livestem.client.subscriber import Subscriber
from livestem.domain.geometry import Grid, Sampling
from livestem.domain.request import ScanGrant, ScanRequest
from livestem.domain.scan import Beam, Eds, EnergyAxis, Haadf, ScanPlan

__all__ = [
    "Acquisition",
    "Beam",
    "Eds",
    "Endpoint",
    "EnergyAxis",
    "Grid",
    "Haadf",
    "Instrument",
    "Keys",
    "Sampling",
    "ScanGrant",
    "ScanPlan",
    "ScanRequest",
    "ScanWriter",
    "Subscriber",
    "load_keys",
]
