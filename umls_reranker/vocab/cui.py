"""The form of a CUI, the id of a concept in the UMLS."""

import re

CUI = re.compile(r"C[0-9]{7}", re.IGNORECASE)
