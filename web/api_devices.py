"""Routes of the registry of devices: who may publish. A device's secret is in one answer and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import segno
from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, Field

from alerts.database import StoreError
from alerts.devices import Credentials, Devices
from bus.clock import now_ms
from web.auth import Session
from web.parts import part
from web.roles import acts, audit, needs

router = APIRouter(tags=["devices"])

Admin = Annotated[Session, Depends(needs("admin"))]
ActingAdmin = Annotated[Session, Depends(acts("admin"))]


class NewDevice(BaseModel):
    """A device to enrol."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    label: Annotated[str, Field(max_length=255)] = ""


def _devices(request: Request) -> Devices:
    return part(request, "devices", Devices)


def _shown_once(request: Request, made: Credentials) -> dict[str, str]:
    """Give text and QR code of a secret."""
    address = request.app.state.settings.devices_address
    text = made.url(address) if address else f"{made.device}:{made.secret}"
    drawing = segno.make(text, micro=False, error="m").svg_inline(scale=4, border=4, light="#fff")
    return {"device": made.device, "secret": made.secret, "broker": address, "url": text, "qr_svg": drawing}


@router.get("/api/devices")
async def list_devices(request: Request, _: Admin) -> list[dict[str, Any]]:
    """Every device by id, revoked ones too, without their secrets."""
    return [msgspec.to_builtins(device) for device in await asyncio.to_thread(_devices(request).devices)]


@router.post("/api/devices", status_code=201)
async def add_device(request: Request, new: NewDevice, mine: ActingAdmin) -> dict[str, str]:
    """Enrol a device."""
    try:
        made = await asyncio.to_thread(_devices(request).add, new.id, new.label, mine.user, now_ms())
    except StoreError as error:
        raise HTTPException(409 if "already" in str(error) else 422, str(error)) from error
    await audit(request, "device.add", new.id)
    return _shown_once(request, made)


@router.post("/api/devices/{device}/rotate")
async def rotate_device(request: Request, device: str, _: ActingAdmin) -> dict[str, str]:
    """Give a device another secret; the old one ends, and a revoked device comes back."""
    try:
        made = await asyncio.to_thread(_devices(request).rotate, device, now_ms())
    except StoreError as error:
        raise HTTPException(404, str(error)) from error
    await audit(request, "device.rotate", device)
    return _shown_once(request, made)


@router.post("/api/devices/{device}/revoke")
async def revoke_device(request: Request, device: str, _: ActingAdmin) -> dict[str, str]:
    """Lock a device out; the broker cuts it off within a second or two."""
    try:
        await asyncio.to_thread(_devices(request).revoke, device, now_ms())
    except StoreError as error:
        raise HTTPException(404, str(error)) from error
    await audit(request, "device.revoke", device)
    return {"status": "revoked"}
