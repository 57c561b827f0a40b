// What loftup_ros uses of rclcpp, with its names and signatures, for tests without ROS 2. Messages are
// delivered at once, on the thread of the publisher. Timers run when a test calls stand_ins::run_timers.
#pragma once

#include <any>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "builtin_interfaces/msg/time.hpp"
#include "rcl_interfaces/msg/parameter_descriptor.hpp"

namespace rclcpp {

class QoS {
  public:
    QoS(std::size_t history_depth) : depth_(history_depth) {}
    QoS &keep_last(std::size_t depth) {
        depth_ = depth;
        return *this;
    }
    QoS &best_effort() {
        reliable_ = false;
        return *this;
    }
    QoS &transient_local() {
        transient_local_ = true;
        return *this;
    }
    bool is_reliable() const { return reliable_; }
    bool is_transient_local() const { return transient_local_; }
    std::size_t depth() const { return depth_; }

  private:
    std::size_t depth_;
    bool reliable_ = true;
    bool transient_local_ = false;
};

class SensorDataQoS : public QoS {
  public:
    SensorDataQoS() : QoS(5) { best_effort(); }
};

enum class IntraProcessSetting { Enable, Disable, NodeDefault };

struct PublisherOptions {
    IntraProcessSetting use_intra_process_comm = IntraProcessSetting::NodeDefault;
};

} // namespace rclcpp

namespace stand_ins {

struct Subscriber {
    std::function<void(std::any)> call;
    rclcpp::QoS qos;
};

/// A topic. What is passed is a std::shared_ptr<const Message>.
struct Topic {
    std::mutex mutex;
    std::vector<std::weak_ptr<Subscriber>> subscribers;
    std::any latched;
    /// How many messages were published, also without subscribers.
    std::size_t published = 0;

    std::vector<std::shared_ptr<Subscriber>> living() {
        std::lock_guard<std::mutex> lock(mutex);
        std::vector<std::shared_ptr<Subscriber>> out;
        for (const auto &weak : subscribers)
            if (auto subscriber = weak.lock())
                out.push_back(subscriber);
        return out;
    }
};

inline Topic &topic(const std::string &name) {
    static std::mutex mutex;
    static std::map<std::string, Topic> topics;
    std::lock_guard<std::mutex> lock(mutex);
    return topics[name.front() == '/' ? name : "/" + name];
}

inline std::vector<std::weak_ptr<std::function<void()>>> &timers() {
    static std::vector<std::weak_ptr<std::function<void()>>> timers;
    return timers;
}

/// Gets every error that is logged.
inline std::function<void(const std::string &)> &on_error() {
    static std::function<void(const std::string &)> function;
    return function;
}

/// Calls what every timer calls.
inline void run_timers() {
    for (const auto &weak : timers())
        if (auto timer = weak.lock())
            (*timer)();
}

} // namespace stand_ins

namespace rclcpp {

class PublisherBase {
  public:
    PublisherBase(stand_ins::Topic &topic, const QoS &qos) : topic_(topic), qos_(qos) {}
    virtual ~PublisherBase() = default;
    std::size_t get_subscription_count() const {
        std::size_t count = 0;
        for (const auto &subscriber : topic_.living())
            count += matches(*subscriber) ? 1 : 0;
        return count;
    }

  protected:
    bool matches(const stand_ins::Subscriber &subscriber) const {
        return (qos_.is_reliable() || !subscriber.qos.is_reliable()) &&
               (qos_.is_transient_local() || !subscriber.qos.is_transient_local());
    }
    stand_ins::Topic &topic_;
    QoS qos_;
};

template <typename MessageT> class Publisher : public PublisherBase {
  public:
    using SharedPtr = std::shared_ptr<Publisher>;
    using PublisherBase::PublisherBase;

    void publish(const MessageT &message) { send(std::make_shared<const MessageT>(message)); }
    void publish(std::unique_ptr<MessageT> message) {
        send(std::shared_ptr<const MessageT>(std::move(message)));
    }

  private:
    void send(std::shared_ptr<const MessageT> message) {
        {
            std::lock_guard<std::mutex> lock(topic_.mutex);
            topic_.published++;
            if (qos_.is_transient_local())
                topic_.latched = message;
        }
        for (const auto &subscriber : topic_.living())
            if (matches(*subscriber))
                subscriber->call(message);
    }
};

template <typename MessageT> class Subscription {
  public:
    using SharedPtr = std::shared_ptr<Subscription>;
    explicit Subscription(std::shared_ptr<stand_ins::Subscriber> subscriber)
        : subscriber_(std::move(subscriber)) {}

  private:
    std::shared_ptr<stand_ins::Subscriber> subscriber_;
};

class TimerBase {
  public:
    using SharedPtr = std::shared_ptr<TimerBase>;
    explicit TimerBase(std::function<void()> call)
        : call_(std::make_shared<std::function<void()>>(std::move(call))) {
        stand_ins::timers().push_back(call_);
    }

  private:
    std::shared_ptr<std::function<void()>> call_;
};

class Time {
  public:
    operator builtin_interfaces::msg::Time() const { return {1, 0}; }
};

class Clock {};

class Logger {};

class NodeOptions {
  public:
    template <typename ParameterT>
    NodeOptions &append_parameter_override(const std::string &name, const ParameterT &value) {
        overrides_[name] = value;
        return *this;
    }
    const std::map<std::string, std::any> &stand_ins_overrides() const { return overrides_; }

  private:
    std::map<std::string, std::any> overrides_;
};

class Node : public std::enable_shared_from_this<Node> {
  public:
    explicit Node(const std::string &node_name, const NodeOptions &options = NodeOptions())
        : name_("/" + node_name), options_(options) {}
    virtual ~Node() = default;

    const char *get_fully_qualified_name() const { return name_.c_str(); }
    Logger get_logger() const { return {}; }
    std::shared_ptr<Clock> get_clock() { return std::make_shared<Clock>(); }
    Time now() const { return {}; }

    template <typename MessageT>
    std::shared_ptr<Publisher<MessageT>>
    create_publisher(const std::string &topic_name, const QoS &qos, const PublisherOptions & = {}) {
        return std::make_shared<Publisher<MessageT>>(stand_ins::topic(topic_name), qos);
    }

    template <typename MessageT, typename CallbackT>
    std::shared_ptr<Subscription<MessageT>>
    create_subscription(const std::string &topic_name, const QoS &qos, CallbackT &&callback) {
        auto call = [callback](std::any message) {
            callback(std::any_cast<std::shared_ptr<const MessageT>>(message));
        };
        auto subscriber =
            std::make_shared<stand_ins::Subscriber>(stand_ins::Subscriber{std::move(call), qos});
        auto &topic = stand_ins::topic(topic_name);
        std::any latched;
        {
            std::lock_guard<std::mutex> lock(topic.mutex);
            topic.subscribers.push_back(subscriber);
            latched = topic.latched;
        }
        if (qos.is_transient_local() && latched.has_value())
            subscriber->call(latched);
        return std::make_shared<Subscription<MessageT>>(subscriber);
    }

    template <typename DurationRepT, typename DurationT, typename CallbackT>
    std::shared_ptr<TimerBase> create_wall_timer(std::chrono::duration<DurationRepT, DurationT>,
                                                 CallbackT callback) {
        return std::make_shared<TimerBase>(std::move(callback));
    }

    template <typename ParameterT>
    auto declare_parameter(const std::string &name, const ParameterT &default_value,
                           const rcl_interfaces::msg::ParameterDescriptor & = {}) {
        auto given = options_.stand_ins_overrides().find(name);
        if (given == options_.stand_ins_overrides().end())
            return default_value;
        return std::any_cast<ParameterT>(given->second);
    }

  private:
    std::string name_;
    NodeOptions options_;
};

} // namespace rclcpp

#define RCLCPP_INFO(logger, ...)                                                                   \
    do {                                                                                           \
        static_cast<void>(logger);                                                                 \
        std::fprintf(stderr, __VA_ARGS__);                                                         \
        std::fputc('\n', stderr);                                                                  \
    } while (0)
// Without throttling.
#define RCLCPP_ERROR_THROTTLE(logger, clock, duration, ...)                                        \
    do {                                                                                           \
        static_cast<void>(logger);                                                                 \
        static_cast<void>(clock);                                                                  \
        static_cast<void>(duration);                                                               \
        char stand_ins_text[1024];                                                                 \
        std::snprintf(stand_ins_text, sizeof stand_ins_text, __VA_ARGS__);                         \
        if (stand_ins::on_error())                                                                 \
            stand_ins::on_error()(stand_ins_text);                                                 \
    } while (0)
