"""A model for a real MLServer: one matrix in, two outputs."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Loads(MLModel):
    """Says 1 where the first number is above zero, and how likely that is."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        matrix = NumpyCodec.decode_input(payload.inputs[0])
        chance = np.where(matrix[:, 0] > 0, 0.9, 0.2)
        chances = np.stack([1 - chance, chance], axis=1)
        labels = (chance > 0.5).astype(np.int64)
        outputs = [NumpyCodec.encode_output("label", labels), NumpyCodec.encode_output("chances", chances)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
