// What a test gets from the thread of the node.

#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "check.hpp"
#include "rclcpp/rclcpp.hpp"

/// Messages in the order of their arrival.
template <typename T> class Inbox {
  public:
    void push(T value) {
        std::lock_guard<std::mutex> lock(mutex_);
        values_.push_back(std::move(value));
        changed_.notify_one();
    }
    /// Waits for the next one. If none comes, the node hangs.
    T next() {
        std::unique_lock<std::mutex> lock(mutex_);
        CHECK(changed_.wait_for(lock, std::chrono::minutes(2), [this] { return !values_.empty(); }));
        T value = std::move(values_.front());
        values_.pop_front();
        return value;
    }
    bool empty() {
        std::lock_guard<std::mutex> lock(mutex_);
        return values_.empty();
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<T> values_;
};

/// A subscriber of a topic, with what it got.
template <typename M> struct Listener {
    Listener(rclcpp::Node &node, const std::string &topic, const rclcpp::QoS &qos)
        : subscription(node.create_subscription<M>(
              topic, qos, [this](std::shared_ptr<const M> m) { inbox.push(std::move(m)); })) {}
    Inbox<std::shared_ptr<const M>> inbox;
    typename rclcpp::Subscription<M>::SharedPtr subscription;
};
