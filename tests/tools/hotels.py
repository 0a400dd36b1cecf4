"""A web application that describes itself."""

from typing import Annotated, Any

import fastapi
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel


class Room(BaseModel):
    number: int
    wishes: list[str] = []


class Booking(BaseModel):
    guest: str
    room: Room
    note: str | None = None


def application() -> fastapi.FastAPI:
    app = fastapi.FastAPI(title="Hotels")
    booked: list[Booking] = []

    @app.get("/hotels/{city}", operation_id="find_hotels", tags=["search"], summary="Finds hotels.")
    def find_hotels(
        city: str,
        stars: Annotated[list[int], fastapi.Query(default_factory=list)],
        x_lang: Annotated[str, fastapi.Header()] = "en",
        session: Annotated[str | None, fastapi.Cookie()] = None,
    ) -> Any:
        """Lists the hotels of a city."""
        return {"city": city, "stars": stars, "lang": x_lang, "session": session}

    @app.post("/hotels/{city}/bookings", operation_id="book", tags=["booking"], status_code=201)
    def book(city: str, booking: Booking) -> Any:
        booked.append(booking)
        return {"city": city, "number": booking.room.number, "bookings": len(booked)}

    @app.delete("/bookings/{id}", operation_id="cancel", tags=["booking"], status_code=204)
    def cancel(id: int) -> None:
        booked.clear()

    @app.get("/me", operation_id="me")
    def me(token: Annotated[HTTPAuthorizationCredentials, fastapi.Depends(HTTPBearer())]) -> Any:
        return {"ok": token.credentials == "bearer-canary", "you sent": token.credentials}

    @app.get("/key", operation_id="key")
    def key(key: Annotated[str, fastapi.Depends(APIKeyHeader(name="X-Key"))]) -> Any:
        return {"ok": key == "header-canary"}

    return app
