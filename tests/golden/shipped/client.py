"""The client of this service: `Client` has a method for every endpoint.

`python -m build.client --help` lists them as commands. To use it elsewhere, copy it into a package
together with client_core.py and client_command.py; they need httpx.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from typing import Literal

from .client_core import BaseClient, Files, Graph, Media, OnProgress, Reply, media, media_files


class Client(BaseClient):
    """The endpoints of the service. What a call leaves out, the service fills in.

    `on_progress` is called about once a second, with where the job is. Endpoints raise ServiceError
    when the service refuses a request, fails it or does not answer.
    """

    def flux(
        self,
        *,
        prompt: str,
        negative_prompt: str | None = None,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        seed: int | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        """FLUX.1 [schnell]: a picture from text in four steps.

        Args:
            prompt: What the picture shows.
            negative_prompt: What the picture must not show; it has an effect when cfg is above 1.
            width: Width in pixels. 16 to 2048, a multiple of 8. Default: 1024.
            height: Height in pixels. 16 to 2048, a multiple of 8. Default: 1024.
            steps: Sampling steps. 1 to 100. Default: 4.
            cfg: How strongly the prompt guides the sampler. 0 to 100. Default: 1.
            seed: The same seed and params give the same picture. 0 to 9007199254740991. Drawn when
                absent.
        """
        return self._run(
            "/flux",
            {
                "prompt": prompt,
                "negative_prompt": negative_prompt,
                "width": width,
                "height": height,
                "steps": steps,
                "cfg": cfg,
                "seed": seed,
            },
            on_progress,
            idempotency_key,
        )

    def flux_dev(
        self,
        *,
        prompt: str,
        negative_prompt: str | None = None,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        guidance: float | None = None,
        seed: int | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        """FLUX.1 [dev]: a picture from text, slower and better than schnell.

        Args:
            prompt: What the picture shows.
            negative_prompt: What the picture must not show; it has an effect when cfg is above 1.
            width: Width in pixels. 16 to 2048, a multiple of 8. Default: 1024.
            height: Height in pixels. 16 to 2048, a multiple of 8. Default: 1024.
            steps: Sampling steps. 1 to 100. Default: 20.
            cfg: How strongly the prompt guides the sampler. 0 to 100. Default: 1.
            guidance: Distilled guidance, which FLUX.1 [dev] uses in place of cfg. 0 to 100.
                Default: 3.5.
            seed: The same seed and params give the same picture. 0 to 9007199254740991. Drawn when
                absent.
        """
        return self._run(
            "/flux-dev",
            {
                "prompt": prompt,
                "negative_prompt": negative_prompt,
                "width": width,
                "height": height,
                "steps": steps,
                "cfg": cfg,
                "guidance": guidance,
                "seed": seed,
            },
            on_progress,
            idempotency_key,
        )

    def flux_instantid(
        self,
        *,
        prompt: str,
        negative_prompt: str | None = None,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        guidance: float | None = None,
        seed: int | None = None,
        reference_image: Media,
        instantid_strength: float | None = None,
        controlnet_strength: float | None = None,
        identity_denoise: float | None = None,
        identity_cfg: float | None = None,
        face_provider: Literal["CPU", "CUDA"] | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        """FLUX.1 [dev] with InstantID: a picture with the face of a reference.

        Two stages. FLUX.1 [dev] composes the picture from the prompt; SDXL with InstantID, which
        exists for SDXL alone, then repaints it with the face of the reference, in the place and
        pose that the composition has. The prompt must lead to a picture with a face.

        Args:
            prompt: What the picture shows.
            negative_prompt: What the picture must not show; it has an effect when cfg is above 1.
            width: Width in pixels. 16 to 2048, a multiple of 8. Default: 1024.
            height: Height in pixels. 16 to 2048, a multiple of 8. Default: 1024.
            steps: Sampling steps. 1 to 100. Default: 20.
            cfg: How strongly the prompt guides the sampler. 0 to 100. Default: 1.
            guidance: Distilled guidance, which FLUX.1 [dev] uses in place of cfg. 0 to 100.
                Default: 3.5.
            seed: The same seed and params give the same picture. 0 to 9007199254740991. Drawn when
                absent.
            reference_image: A picture of one person; the face counts.
            instantid_strength: How strongly the face of the reference is imposed. 0 to 3. Default:
                0.8.
            controlnet_strength: How strongly the place and pose of the composed face are kept. 0 to
                10. Default: 0.8.
            identity_denoise: How much the second stage repaints; 0 keeps the composition as it is.
                0 to 1. Default: 0.6.
            identity_cfg: How strongly the prompt guides the second stage. 0 to 100. Default: 4.5.
            face_provider: What the face analysis runs on. Default: "CPU".
        """
        return self._run(
            "/flux-instantid",
            {
                "prompt": prompt,
                "negative_prompt": negative_prompt,
                "width": width,
                "height": height,
                "steps": steps,
                "cfg": cfg,
                "guidance": guidance,
                "seed": seed,
                "reference_image": media(reference_image),
                "instantid_strength": instantid_strength,
                "controlnet_strength": controlnet_strength,
                "identity_denoise": identity_denoise,
                "identity_cfg": identity_cfg,
                "face_provider": face_provider,
            },
            on_progress,
            idempotency_key,
        )

    def flux_lora(
        self,
        *,
        prompt: str,
        negative_prompt: str | None = None,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        guidance: float | None = None,
        seed: int | None = None,
        lora_id: str | None = None,
        lora_name: str | None = None,
        lora_strength: float | None = None,
        trigger_word: str | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        """FLUX.1 [dev] with a LoRA.

        LoRA files are in the folder loras of the Volume ryla-models. Give lora_id for
        character-<lora_id>.safetensors, or lora_name for any other file. Exactly one of lora_id,
        lora_name is given.

        Args:
            prompt: What the picture shows.
            negative_prompt: What the picture must not show; it has an effect when cfg is above 1.
            width: Width in pixels. 16 to 2048, a multiple of 8. Default: 1024.
            height: Height in pixels. 16 to 2048, a multiple of 8. Default: 1024.
            steps: Sampling steps. 1 to 100. Default: 20.
            cfg: How strongly the prompt guides the sampler. 0 to 100. Default: 1.
            guidance: Distilled guidance, which FLUX.1 [dev] uses in place of cfg. 0 to 100.
                Default: 3.5.
            seed: The same seed and params give the same picture. 0 to 9007199254740991. Drawn when
                absent.
            lora_id: The LoRA character-<lora_id>.safetensors.
            lora_name: File name of the LoRA.
            lora_strength: How strongly the LoRA changes the model. -100 to 100. Default: 1.
            trigger_word: Word that the LoRA was trained on; it goes before the prompt.
        """
        return self._run(
            "/flux-lora",
            {
                "prompt": prompt,
                "negative_prompt": negative_prompt,
                "width": width,
                "height": height,
                "steps": steps,
                "cfg": cfg,
                "guidance": guidance,
                "seed": seed,
                "lora_id": lora_id,
                "lora_name": lora_name,
                "lora_strength": lora_strength,
                "trigger_word": trigger_word,
            },
            on_progress,
            idempotency_key,
        )

    def seedvr2(
        self,
        *,
        image: Media,
        resolution: int | None = None,
        max_resolution: int | None = None,
        seed: int | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        """SeedVR2 7B: a larger, sharper picture from a picture.

        Args:
            image: The picture to upscale.
            resolution: Length of the result's shorter side, in pixels. 16 to 16384, a multiple of
                2. Default: 1080.
            max_resolution: Most pixels of the result's longer side; 0 is no limit. 0 to 16384, a
                multiple of 2. Default: 4000.
            seed: The same seed and params give the same picture. 0 to 4294967295. Drawn when
                absent.
        """
        return self._run(
            "/seedvr2",
            {
                "image": media(image),
                "resolution": resolution,
                "max_resolution": max_resolution,
                "seed": seed,
            },
            on_progress,
            idempotency_key,
        )

    def wan2(
        self,
        *,
        prompt: str,
        negative_prompt: str | None = None,
        width: int | None = None,
        height: int | None = None,
        length: int | None = None,
        fps: int | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        seed: int | None = None,
        quality: int | None = None,
        format: Literal["webp", "mp4"] | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        """Wan 2.1 1.3B: a short video from text.

        Args:
            prompt: What the video shows.
            negative_prompt: What the video must not show.
            width: Width in pixels. 16 to 1280, a multiple of 16. Default: 832.
            height: Height in pixels. 16 to 1280, a multiple of 16. Default: 480.
            length: Number of frames: 4n+1. 1 to 161, 1 plus a multiple of 4. Default: 33.
            fps: Frames per second. 1 to 60. Default: 16.
            steps: Sampling steps. 1 to 100. Default: 30.
            cfg: How strongly the prompt guides the sampler. 0 to 100. Default: 6.
            seed: The same seed and params give the same video. 0 to 9007199254740991. Drawn when
                absent.
            quality: Quality of the WebP; MP4 has its own. 0 to 100. Default: 90.
            format: An animated WebP, or an MP4. Default: "webp".
        """
        return self._run(
            "/wan2",
            {
                "prompt": prompt,
                "negative_prompt": negative_prompt,
                "width": width,
                "height": height,
                "length": length,
                "fps": fps,
                "steps": steps,
                "cfg": cfg,
                "seed": seed,
                "quality": quality,
                "format": format,
            },
            on_progress,
            idempotency_key,
        )

    def workflow(
        self,
        *,
        workflow: Graph,
        prompt: str | None = None,
        files: Files | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        """Any ComfyUI graph.

        Runs the graph that the caller sends, so it is off unless somebody switches it on here. Set
        enabled to true only where every caller is trusted. It was switched off when this was
        rendered: the service then answers 403.

        Args:
            workflow: A ComfyUI graph in API format, or a workflow in UI format as the canvas saves
                it.
            prompt: Replaces the positive text of the graph; the negative stays as it is.
            files: Pictures, videos and sounds that the graph loads, by the names in it.
        """
        return self._run(
            "/workflow",
            {"workflow": workflow, "prompt": prompt, "files": media_files(files)},
            on_progress,
            idempotency_key,
        )


if __name__ == "__main__":
    from .client_command import main

    raise SystemExit(main(Client))
