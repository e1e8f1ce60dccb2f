import json

from django.http import JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from notes.models import Note


def hello(request, name):
    return JsonResponse({"hello": name})


@csrf_exempt
def notes(request):
    note = Note.objects.create(**json.loads(request.body))
    note.refresh_from_db()
    return JsonResponse({"title": note.title, "size": note.size}, status=201)


@csrf_exempt
def upload(request):
    return JsonResponse({"size": len(request.body)})


def stream(request):
    return StreamingHttpResponse((f"{number}\n" for number in range(5)), content_type="text/plain")
