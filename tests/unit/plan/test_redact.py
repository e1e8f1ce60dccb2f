"""What must not leave by the admin endpoint, and what may."""

from __future__ import annotations

import pytest

from mooring.plan import redact


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("main:app", "main:app"),
        ("main:create_app()", "main:create_app()"),
        ('main:create_app("s3cret", db="(x)")', "main:create_app(...)"),
    ],
)
def test_a_factorys_arguments_are_not_shown(given, shown):
    assert redact.call(given) == shown


def test_a_text_that_names_the_application_is_shown_without_them():
    target = "main:make('s3cret')"
    assert redact.without_arguments(f"{target} is slow", target) == "main:make(...) is slow"
    assert redact.without_arguments("all is well", None) == "all is well"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("--workers 3 -k gthread", "--workers 3 -k gthread"),
        ("-e KEY=s3cret --env=TOKEN=s3cret", "-e KEY=(not shown) --env=TOKEN=(not shown)"),
        ("--env 'A=s3cret and more' -eB=s3cret", "--env A=(not shown) -eB=(not shown)"),
        ("--error-logfile x --enable-stdio-inheritance", "--error-logfile x --enable-stdio-inheritance"),
        (
            "--en A=s3cret --e B=s3cret --en=C=s3cret",
            "--en A=(not shown) --e B=(not shown) --en=C=(not shown)",
        ),
        ("-Re A=s3cret -ReB=s3cret", "-Re A=(not shown) -ReB=(not shown)"),
        ("-e A=s3cret -k eventlet", "-e A=(not shown) -k eventlet"),
        ("main:make('s3cret')", "main:make(...)"),
        ("--env 'A=s3cret", redact.HIDDEN),
    ],
)
def test_variables_among_gunicorns_arguments_are_not_shown(given, shown):
    assert redact.arguments(given) == shown
