from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import path, re_path
from notes import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("hello/<name>", views.hello),
    path("notes", views.notes),
    path("upload", views.upload),
    path("stream", views.stream),
    re_path(r"^static/(?P<path>.*)$", serve, {"insecure": True}),
]
