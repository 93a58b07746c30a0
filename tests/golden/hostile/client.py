"""The client of this service: `Client` has a method for every endpoint.

`python -m build.client --help` lists them as commands. To use it elsewhere, copy it into a package
together with client_core.py and client_command.py; they need httpx.

Rendered by `python -m generator build`: edit the YAML files, not this one.
"""

from typing import Literal

from .client_core import BaseClient, Media, OnProgress, Reply, media


class Client(BaseClient):
    """The endpoints of the service. What a call leaves out, the service fills in.

    `on_progress` is called about once a second, with where the job is. Endpoints raise ServiceError
    when the service refuses a request, fails it or does not answer.
    """

    def absent(
        self,
        *,
        matched: str | None = None,
        ratio: float | None = None,
        count: Literal[1, 2, 4] | None = None,
        flag: bool | None = None,
        json: str | None = None,
        copy: int | None = None,
        class_: str | None = None,
        model_config: bool | None = None,
        str: str | None = None,
        item: str | None = None,
        text: str | None = None,
        mask: Media | None = None,
        word: str | None = None,
        left: str | None = None,
        right: str | None = None,
        format: Literal['a"b', "{{ c }}"] | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        """Params that may be absent, and a choice of outputs.

         Exactly one of left, right is given.

        Args:
            matched: Default: ""a"".
            ratio: One of 0.5, 1, 2.25. Default: 1.
            count: Default: 4.
            flag: Default: true.
            copy: -5 to 5. Default: 0.
            class_: Default: "class".
            model_config: Default: false.
            str: Default: "str".
            item: Default: "item".
            text: Default: "text".
            format: Default: "a"b".
        """
        return self._run(
            "/absent",
            {
                "matched": matched,
                "ratio": ratio,
                "count": count,
                "flag": flag,
                "json": json,
                "copy": copy,
                "class": class_,
                "model_config": model_config,
                "str": str,
                "item": item,
                "text": text,
                "mask": media(mask),
                "word": word,
                "left": left,
                "right": right,
                "format": format,
            },
            on_progress,
            idempotency_key,
        )

    def quotes(
        self,
        *,
        prompt: str | None = None,
        choice: Literal["it's", '"quoted"', "{{ x }}", "a\\b", "${y}", ""] | None = None,
        affixed: str | None = None,
        matched: str | None = None,
        ratio: float | None = None,
        count: Literal[1, 2, 4] | None = None,
        flag: bool | None = None,
        json: str | None = None,
        copy: int | None = None,
        class_: str | None = None,
        model_config: bool | None = None,
        str: str | None = None,
        item: str | None = None,
        text: str | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Reply:
        """\"\"\" ends a docstring, {{ 7*7 }} a template, \\ a line, \u202e turns it round.

        ''' \"\"\" \x00{% raw %}${prompt}{# x #}.

        Args:
            prompt: \"\"\"\\N{DIGIT ONE} {prompt} %s \u202etxt\u2066 {{ 7*7 }} ${prompt}. Default:
                ""'\\\\r\\n\\t\\x00\\u2028\\u202e{{ x }}{% y %}{# z #}\"\"\"''' ${not_a_slot} 🦊 é".
            choice: Default: "{{ x }}".
            matched: Default: ""a"".
            ratio: One of 0.5, 1, 2.25. Default: 1.
            count: Default: 4.
            flag: Default: true.
            copy: -5 to 5. Default: 0.
            class_: Default: "class".
            model_config: Default: false.
            str: Default: "str".
            item: Default: "item".
            text: Default: "text".
        """
        return self._run(
            "/hostile/quotes",
            {
                "prompt": prompt,
                "choice": choice,
                "affixed": affixed,
                "matched": matched,
                "ratio": ratio,
                "count": count,
                "flag": flag,
                "json": json,
                "copy": copy,
                "class": class_,
                "model_config": model_config,
                "str": str,
                "item": item,
                "text": text,
            },
            on_progress,
            idempotency_key,
        )


if __name__ == "__main__":
    from .client_command import main

    raise SystemExit(main(Client))
