"""Connexion's FlaskApp as its tutorial has it: ORM entities that dump themselves, a scoped session, its validators."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import connexion
import jwt
from connexion.exceptions import OAuthProblem
from sqlalchemy import DateTime, ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker

SECRET = os.environ["BETTER_AUTH_SECRET"]
engine = create_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"), pool_size=10, max_overflow=0
)
db_session = scoped_session(sessionmaker(bind=engine))


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str | None]
    name: Mapped[str | None]


class Task(Base):
    __tablename__ = "tasks"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    title: Mapped[str]
    title_folded: Mapped[str]
    description: Mapped[str | None]
    description_folded: Mapped[str | None]
    completed: Mapped[bool] = mapped_column(default=False)
    priority: Mapped[str | None]
    due_date: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)

    def update(self, **fields: Any) -> None:
        for name, value in fields.items():
            if name == "due_date" and value is not None:
                value = datetime.fromisoformat(value)
            setattr(self, name, value)
            if name in ("title", "description"):
                setattr(self, f"{name}_folded", value and value.casefold())

    def dump(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_") and "folded" not in key}


def bearer_info(token: str) -> dict[str, Any]:
    try:
        return jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp", "iat", "sub"]})
    except jwt.PyJWTError as error:
        raise OAuthProblem("no valid token") from error


def list_tasks(user: str, status: str, limit: int) -> Any:
    query = db_session.query(Task).filter(Task.user_id == user)
    if status != "all":
        query = query.filter(Task.completed == (status == "completed"))
    tasks = query.order_by(Task.created_at.desc(), Task.id.desc()).limit(limit)
    return [task.dump() for task in tasks]


def create_task(user: str, token_info: dict[str, Any], body: dict[str, Any]) -> Any:
    if db_session.get(User, user) is None:
        db_session.add(User(id=user, email=token_info.get("email"), name=token_info.get("name")))
        db_session.flush()
    task = Task(user_id=user)
    task.update(**body)
    db_session.add(task)
    return _saved(task), 201


def get_task(user: str, id: str) -> Any:
    task = _find(user, id)
    return task.dump() if task else ("no such task", 404)


def update_task(user: str, id: str, body: dict[str, Any]) -> Any:
    task = _find(user, id)
    if task is None:
        return "no such task", 404
    task.update(**body, version=task.version + 1, updated_at=now())
    return _saved(task)


def complete_task(user: str, id: str) -> Any:
    task = _find(user, id)
    if task is None:
        return "no such task", 404
    task.update(completed=not task.completed, version=task.version + 1, updated_at=now())
    return _saved(task)


def delete_task(user: str, id: str) -> Any:
    task = _find(user, id)
    if task is None:
        return "no such task", 404
    db_session.delete(task)
    db_session.commit()
    return connexion.NoContent, 204


def _find(user: str, id: str) -> Task | None:
    return db_session.query(Task).filter(Task.user_id == user, Task.id == UUID(id)).one_or_none()


def _saved(task: Task) -> dict[str, Any]:
    db_session.commit()
    db_session.refresh(task)
    return task.dump()


app = connexion.FlaskApp(__name__, specification_dir=str(Path(__file__).parent))
app.add_api("connexion_flask.yaml")


@app.app.teardown_appcontext
def shutdown_session(_exception: BaseException | None = None) -> None:
    db_session.remove()
