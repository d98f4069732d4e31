"""FastAPI with SQLModel as most people write it: sync endpoints, a session a request, models for bodies and answers."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID, uuid4

import jwt
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import DateTime
from sqlmodel import Field, Session, SQLModel, create_engine, select

SECRET = os.environ["BETTER_AUTH_SECRET"]
engine = create_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"),
    pool_size=10,
    max_overflow=0,
    pool_pre_ping=True,
)


def now() -> datetime:
    return datetime.now(UTC)


class Status(StrEnum):
    all = "all"
    pending = "pending"
    completed = "completed"


class Priority(StrEnum):
    low = "low"
    medium = "medium"
    high = "high"


class User(SQLModel, table=True):
    __tablename__ = "users"

    id: str = Field(primary_key=True)
    email: str | None = None
    name: str | None = None
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class TaskBase(SQLModel):
    title: str = Field(min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=1000)
    completed: bool = False
    priority: Priority | None = None
    due_date: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class Task(TaskBase, table=True):
    __tablename__ = "tasks"

    user_id: str = Field(primary_key=True, foreign_key="users.id")
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    priority: str | None = None
    title_folded: str
    description_folded: str | None = None
    version: int = 1
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class TaskCreate(TaskBase):
    pass


class TaskUpdate(SQLModel):
    title: str | None = Field(default=None, min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=1000)
    completed: bool | None = None
    priority: Priority | None = None
    due_date: datetime | None = None


class TaskRead(TaskBase):
    id: UUID
    version: int
    user_id: str
    created_at: datetime
    updated_at: datetime


def get_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def get_claims(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> dict[str, Any]:
    try:
        options: Any = {"require": ["exp", "iat", "sub"]}
        return jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"], options=options)
    except jwt.PyJWTError as error:
        raise HTTPException(401, "no valid token", headers={"WWW-Authenticate": "Bearer"}) from error


AnySession = Annotated[Session, Depends(get_session)]
Claims = Annotated[dict[str, Any], Depends(get_claims)]


def get_task_or_404(id: UUID, session: AnySession, claims: Claims) -> Task:
    task = session.exec(select(Task).where(Task.user_id == claims["sub"], Task.id == id)).first()
    if task is None:
        raise HTTPException(404, "no such task")
    return task


ATask = Annotated[Task, Depends(get_task_or_404)]
app = FastAPI()


@app.get("/api/tasks", response_model=list[TaskRead])
def list_tasks(
    session: AnySession,
    claims: Claims,
    status: Status = Status.all,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Any:
    statement = select(Task).where(Task.user_id == claims["sub"])
    if status != Status.all:
        statement = statement.where(Task.completed == (status == Status.completed))
    return session.exec(statement.order_by(Task.created_at.desc(), Task.id.desc()).limit(limit)).all()


@app.post("/api/tasks", response_model=TaskRead, status_code=201)
def create_task(body: TaskCreate, session: AnySession, claims: Claims) -> Any:
    if session.get(User, claims["sub"]) is None:
        session.add(User(id=claims["sub"], email=claims.get("email"), name=claims.get("name")))
        session.flush()
    task = Task.model_validate(body, update={"user_id": claims["sub"], **folded(body.model_dump())})
    return save(session, task)


@app.get("/api/tasks/{id}", response_model=TaskRead)
def get_task(task: ATask) -> Any:
    return task


@app.put("/api/tasks/{id}", response_model=TaskRead)
def update_task(body: TaskUpdate, task: ATask, session: AnySession) -> Any:
    changes = body.model_dump(exclude_unset=True)
    task.sqlmodel_update(changes | folded(changes) | {"version": task.version + 1, "updated_at": now()})
    return save(session, task)


@app.patch("/api/tasks/{id}/complete", response_model=TaskRead)
def complete_task(task: ATask, session: AnySession) -> Any:
    task.sqlmodel_update({"completed": not task.completed, "version": task.version + 1, "updated_at": now()})
    return save(session, task)


@app.delete("/api/tasks/{id}", status_code=204)
def delete_task(task: ATask, session: AnySession) -> None:
    session.delete(task)
    session.commit()


def save(session: Session, task: Task) -> Task:
    session.add(task)
    session.commit()
    session.refresh(task)
    return task


def folded(changes: dict[str, Any]) -> dict[str, Any]:
    texts = {name: changes[name] for name in ("title", "description") if name in changes}
    return {f"{name}_folded": text and text.casefold() for name, text in texts.items()}
