"""Adds the field that the origin has to see, FIELD and VALUE of the environment, and holds no answer back."""

import os


class Inject:
    def __init__(self):
        self.field, self.value = os.environ["FIELD"], os.environ["VALUE"]

    def requestheaders(self, flow):
        flow.request.headers[self.field] = self.value

    def responseheaders(self, flow):
        flow.response.stream = True


addons = [Inject()]
